"""What tests share: servers, clocks, builders, a sibling server, a broken link. Not tests themselves."""
