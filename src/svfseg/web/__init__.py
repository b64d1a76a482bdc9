"""The page for people, the service for programs, and the backend for Label Studio."""
