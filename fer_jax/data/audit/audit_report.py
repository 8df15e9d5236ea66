"""Writes the report of an audit: audit.md, audit.json, and figures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_jax import tables
from fer_jax.data.audit import audit, audit_plots
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources.recognize import open_source


def write_audit(
    source_path: str | Path,
    out_dir: str | Path,
    *,
    class_map: Mapping[str, str] | None = None,
    near_threshold: float = 0.9,
) -> dict[str, Any]:
    """Audits a source and writes audit.md, audit.json, and figures to `out_dir`.

    Args:
      source_path, class_map: see `recognize.open_source`.
      near_threshold: minimum zero-mean correlation of near duplicates, in (0, 1].

    Returns:
      The content of audit.json.

    Raises:
      SourceError: no image can be used.
      OSError: `out_dir` cannot be written.
    """
    source = open_source(source_path, class_map)
    out = Path(out_dir).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    data = audit.collect(source)
    report = audit.examine(source, data, near_threshold)
    report["pictures"] = audit_plots.write_pictures(out, data, report)
    (out / "audit.json").write_text(json.dumps(report, indent=1) + "\n")
    page = tables.render(__package__, "audit.md.j2", report=report, emotions=EMOTIONS)
    (out / "audit.md").write_text(page)
    return report
