"""A crowd at the sign-in page takes no more memory than two sign-ins do, the first crowd included."""

import threading

from argon2 import PasswordHasher

from godwit.server.accounts.passwords import AT_ONCE, Passwords


class Counting(PasswordHasher):
    """Computes, and knows how many did at once."""

    def __init__(self):
        super().__init__(time_cost=1, memory_cost=8_192, parallelism=1)
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def _counted(self, compute):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            return compute()
        finally:
            with self.lock:
                self.now -= 1

    def hash(self, password, *, salt=None):
        return self._counted(lambda: super(Counting, self).hash(password, salt=salt))

    def verify(self, hash, password):  # noqa: A002 - as there
        return self._counted(lambda: super(Counting, self).verify(hash, password))


def test_a_crowd():
    hasher = Counting()
    passwords, begin = Passwords(hasher), threading.Barrier(16)

    def sign_in():
        begin.wait()
        assert not passwords.verify(None, "nobody is called so")

    crowd = [threading.Thread(target=sign_in) for _ in range(16)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    assert hasher.most <= AT_ONCE
