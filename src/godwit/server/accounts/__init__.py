"""Who may use the platform: users, sessions, API tokens, the first token. Devices are identity's business."""
