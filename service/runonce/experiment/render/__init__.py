"""Values to JSON and back, each by the type that its annotation declares. The table of forms is docs/forms.md."""
