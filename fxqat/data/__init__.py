"""Data: data set files and images, read as Ultralytics' validator reads them."""
