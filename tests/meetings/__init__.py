"""Tests of combined features: random users, a real daemon, a model of its promises."""
