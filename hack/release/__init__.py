"""Everything of a release that is a file: wheel, source, chart, manifest, bills of materials, checksums."""
