"""What picowatch is measured against: each a program such as people write, without picowatch."""
