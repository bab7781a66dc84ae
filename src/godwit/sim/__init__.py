"""A faithful fake of the world: curves, devices and fleets that speak through the real broker. All of it seeded."""
