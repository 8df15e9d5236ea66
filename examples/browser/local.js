// Browsers do not load modules from local files, so only this script can show an error.
if (location.protocol === "file:") {
  document.getElementById("status").hidden = true;
  const error = document.getElementById("error");
  error.hidden = false;
  error.textContent =
    "This page must be loaded from a web server. In its folder, run " +
    "python -m http.server, and open http://localhost:8000.";
}
