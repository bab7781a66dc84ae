"""Who may use the platform: the administrator's token, sign-in links and sessions. Devices are identity's business."""
