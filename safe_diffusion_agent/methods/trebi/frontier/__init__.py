"""`judge="frontier"`: plans judged by the most that the rest of the budget can still buy."""
