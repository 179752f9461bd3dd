"""Checks of schemathesis that a GraphQL service asks for: its failures come with status 200."""

import schemathesis

EXPECTED_STATUS = {200, 400, 401}


@schemathesis.check
def no_defect(ctx, response, case):
    """No 5xx, an answer in JSON, and none of its errors a defect of the service."""
    assert response.status_code in EXPECTED_STATUS, f"status {response.status_code}"
    answer = response.json()
    codes = [error.get("extensions", {}).get("code") for error in answer.get("errors") or []]
    assert "INTERNAL" not in codes, answer["errors"]
    assert None not in codes, answer["errors"]
