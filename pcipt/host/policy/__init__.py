"""What keeps devices for guests on this host: the files of the policy, and the places that it names."""
