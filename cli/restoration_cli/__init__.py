"""`kubectl vr`: restorations for people at a terminal.

Everything here can be done with kubectl as well; this saves typing, uploads local files, and says in plain words why a
restoration waits or failed. It runs with its user's rights and knows the contracts (`restoration_api`), nothing else of
ours. What is said and built (`explain`, `rows`, `submission`, `again`) is pure; `access` talks to the cluster,
`uploads` and `reading` to object storage; `footage` alone decodes video.
"""
