"""What `picowatch doctor` asks of torch."""
