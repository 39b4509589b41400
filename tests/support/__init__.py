"""What tests of several folders share: networks and files made for tests, servers, graphs, stand-ins for devices."""
