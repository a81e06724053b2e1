"""Metadata of pictures: image requests as A1111's text, picowatch's JSON and YAML, and back."""
