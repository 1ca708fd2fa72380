"""``python -m trainer online`` (a process of the loop), ``batch`` (a full model from a day of the lake),
``base`` (one from a file), ``holdout`` (sets of samples compared by what a model learns from them) and
``windows`` (models that know only the last minutes)."""

from __future__ import annotations

import sys

USAGE = "usage: python -m trainer online|batch|base|holdout|windows [--help]"


def main(argv: list[str]) -> None:
    """Wires the named subcommand; torch is loaded only by the one that runs."""
    if argv[:1] == ["online"]:
        from services.runtime.process import run
        from services.runtime.settings import load
        from trainer.settings import OnlineSettings
        from trainer.wiring import serve

        settings = load(OnlineSettings, argv[1:])
        run(settings, lambda process: serve(process, settings))
    elif argv[:1] == ["batch"]:
        from trainer.batch import main as batch_main

        raise SystemExit(batch_main(argv[1:]))
    elif argv[:1] == ["base"]:
        from trainer.base import main as base_main

        raise SystemExit(base_main(argv[1:]))
    elif argv[:1] == ["holdout"]:
        from trainer.holdout import main as holdout_main

        raise SystemExit(holdout_main(argv[1:]))
    elif argv[:1] == ["windows"]:
        from trainer.windows import main as windows_main

        raise SystemExit(windows_main(argv[1:]))
    else:
        sys.stderr.write(f"{USAGE}\n")
        raise SystemExit(0 if argv[:1] in (["--help"], ["-h"]) else 2)


if __name__ == "__main__":
    main(sys.argv[1:])
