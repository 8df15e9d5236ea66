// Browsers load no modules from a file opened by a double click: say so, for nothing else can.
if (location.protocol === "file:") {
  document.getElementById("status").hidden = true;
  const error = document.getElementById("error");
  error.hidden = false;
  error.textContent =
    "This page has to come from a web server. In its folder give the command " +
    "python -m http.server and open http://localhost:8000.";
}
