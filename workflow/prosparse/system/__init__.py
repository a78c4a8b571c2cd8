"""What every step shares and none owns."""
