"""`make demo`: one real clip through a real cluster, and what came out of it on disk.

It does what a user does (build, install the chart, upload, `kubectl apply`, watch the status, download) and then what a
user would want to know: is the result better than plain upscaling, how long did each stage take, where is everything.

* `stage`: the cluster, object store and registry to play on: the development cluster, or yours (KUBECONFIG)
* `images`, `install`, `bucket`: what has to be on it
* `watch`: the status, live
* `compare`: the picture and the PSNR
The end-to-end tests use the same pieces.
"""
