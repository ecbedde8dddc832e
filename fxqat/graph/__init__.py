"""FX graphs: sites, text, matching, rewriting, pipelines. Independent of quantization."""
