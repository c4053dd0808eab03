"""What `stillframe doctor` looks at; nothing here changes anything."""
