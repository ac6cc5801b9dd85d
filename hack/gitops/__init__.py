"""A real Argo CD for tests: built from its Go module, run as processes of this machine against any cluster.

* argocd.py       redis, repo-server, application-controller and API server; the command line
* repository.py   the git repository that it follows
"""
