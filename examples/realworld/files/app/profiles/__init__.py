"""Users as others see them, and who follows whom."""
