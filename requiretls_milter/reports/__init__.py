"""What the commands find out and print: check, audit, report, explain, export."""
