"""What came out: model versions, where they came from, their files, their aliases."""
