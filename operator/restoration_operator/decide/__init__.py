"""All policy, as pure functions: what was observed and the time go in, a status and actions come out.

Nothing in here imports kopf or a client, reads a clock or does I/O, so every rule is a row of a table test and the
whole of it runs against a simulated API server with faults. One policy is one file; `decision.decide` joins them.
"""
