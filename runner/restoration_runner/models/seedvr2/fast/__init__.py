"""The networks once more, for speed: the same results as the plain modules beside this folder, behind their interface.

The plain modules are the reference that is read and tested; these prepare their own weights from them.
"""
