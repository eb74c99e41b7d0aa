"""Groups of Korean words that mean the same, such as "월급" and "급여" for pay.

A search by words finds only what is written; these groups let it find what is meant. They cover a common office;
a company adds words of its own.
"""

_GROUPS = """
월급 급여 임금 봉급
보너스 상여금 성과급 인센티브
미팅 회의
암호 패스워드 비밀번호
컴퓨터 노트북 맥북 랩톱
화면 모니터 디스플레이
이메일 메일 편지
소포 택배 배달
자동차 자가용 차량 주차
카드 신용카드 법인카드
손님 방문객 외부인 거래처
릴리스 배포 출시
온콜 당직
사본 백업 복구 복원
에어컨 히터 냉난방 냉방 난방 온도
선배 멘토 사수
외국 해외
집에서 재택 재택근무 원격
분실 도난 도둑 잃어버리
퇴사 퇴직 그만두
피싱 의심 스팸
와이파이 인터넷 무선
메신저 메시지 답장 회신
사원증 출입증
영수증 정산 청구
강의 수업 교육 강좌 수강
점심 식사 구내식당 식당
저녁값 식대 밥값
수당 지급
휴직 육아휴직
병원 진단서 병가
장례 장례식 경조사 결혼 결혼식 신혼여행
세금 소득 연말정산
명세서 내역서 내역
신입 입사
장애 오류 고장 멈추
사용자 고객 회원 가입자
""".strip()
_BY_WORD: dict[str, list[str]] = {}
for _line in _GROUPS.splitlines():
    for _word in _line.split():
        _BY_WORD[_word] = [other for other in _line.split() if other != _word]


def find_synonyms(text: str) -> list[str]:
    """Find the words that mean the same as words of the text.

    >>> find_synonyms("보너스는 언제 나와요?")
    ['상여금', '성과급', '인센티브']
    """
    found = (other for word, others in _BY_WORD.items() if word in text for other in others)
    return [other for other in dict.fromkeys(found) if other not in text]
