"""What `firefleet demo` and the tests run on one machine: the emulators, and a stand-in for Eventarc."""
