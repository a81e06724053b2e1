"""A machine that lets features meet: random users, a real daemon, a model of its contract."""
