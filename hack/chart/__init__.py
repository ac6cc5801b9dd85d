"""What is generated from the Helm chart: its README, its dashboard, and plain manifests for kubectl and kustomize."""
