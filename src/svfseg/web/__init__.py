"""Fitted tasks over HTTP: a service for programs, a page for people (extra ``app``)."""
