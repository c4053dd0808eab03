"""TaskFlow set up: persistence, workers, deadlines and progress; knows no storage."""
