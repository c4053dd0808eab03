"""The command line: one command per file, found through the table in `stillframe.cli.commands`."""
