-- Ends the Job; finished segments are kept.
obj.spec.suspend = true
return obj
