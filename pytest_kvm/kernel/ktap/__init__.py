"""What does a test program in the guest say of its cases? KTAP and TAP, as they come."""
