"""The documentation: the site that mkdocs builds of it, and the proof that its shell blocks work.

* `pages`: which files are documentation
* `blocks`: the code blocks of a page, and what the marker above each one promises
* `promises`: whether CI keeps what a marker says
* `site`: mkdocs' hook, which shows mkdocs the repository's own tree
`tests/docs` runs the blocks.
"""
