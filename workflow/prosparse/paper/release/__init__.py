"""Package a sparse model as a folder to upload, with its model card."""
