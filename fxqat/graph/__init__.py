"""FX graphs: sites, text, matching, rewriting, pipelines. Nothing here knows of quantization."""
