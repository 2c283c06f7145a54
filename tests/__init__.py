"""The tests of devhost-server: unit tests mirror the sources, `conformance` looks from outside."""
