"""The one version of everything: command line, trainer and wheel."""

VERSION = "0.1.0"
