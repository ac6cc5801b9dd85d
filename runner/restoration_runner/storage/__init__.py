"""Where bytes live: one small protocol, served by S3 object storage and by the file system alike."""
