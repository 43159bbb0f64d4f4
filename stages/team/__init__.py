"""Which of several models belong together: pure functions of what each answered, see docs/team-search.md."""
