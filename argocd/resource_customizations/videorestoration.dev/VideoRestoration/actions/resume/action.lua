-- Goes on from the finished segments.
obj.spec.suspend = false
return obj
