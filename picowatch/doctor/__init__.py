"""The checks of `picowatch doctor`."""
