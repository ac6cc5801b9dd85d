"""The container images as a release ships them: built, measured, listed, labelled.

`hack.cluster.images` builds them for the development cluster; the same recipe is used here.
"""
