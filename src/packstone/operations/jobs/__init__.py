"""A backup strategy as a file: what to store when, where to, for how long, what comes back first.

`strategy` says what can be written in it, `config` reads it; `run` carries it out, `plan` says
what a restore would cost, `advise` what the history suggests.
"""
