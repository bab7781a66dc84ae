"""Process plumbing without an IoT word in it: files, backoff, supervision of tasks."""
