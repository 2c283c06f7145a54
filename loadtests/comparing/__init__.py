"""The gateway measured beside its peers; `python loadtests/compare.py --help` has the commands.

`works` says what is measured, `proxies` on whom, `lab` starts them, `rounds` measures, `results` is what is kept,
`report` and `charts` show it.
"""
